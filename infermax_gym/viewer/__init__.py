"""Looking at runs: timelines for trace viewers."""
