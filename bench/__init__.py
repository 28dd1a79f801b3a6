"""How fast tradetape is, beside the bare libraries it stands on: `python -m bench`.

Every subject measures both sides in the same run on the same machine, and judges their ratio, never a time alone.
"""
