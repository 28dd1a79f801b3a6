"""Start of `python -m tradetape.console`: the same as the `tradetape` command."""

import sys

from tradetape.console.cli import main

sys.exit(main())
