"""The workers that `tradetape work` runs, each its command line and its composition: settings in, processor and engine out."""
