"""What comes from outside, taken apart by those who read it: whatever it is, there is an answer and no crash."""
