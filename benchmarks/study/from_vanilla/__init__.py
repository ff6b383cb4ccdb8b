"""What context adds to a trained vanilla network: many seeds and rows in minutes of one GPU."""
