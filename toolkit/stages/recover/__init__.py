"""The stage `recover`: fine-tunes with the dense model as teacher."""
