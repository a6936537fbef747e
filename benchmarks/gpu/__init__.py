"""What `gpu_check.py` checks and times, section by section."""
