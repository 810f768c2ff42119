"""The stage `channel_prune`: makes layers physically narrower."""
