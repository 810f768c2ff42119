"""The training loop that stages share, and the checkpoint that it goes on from."""
