"""The stage `va_red`: makes convolutions compute only some time steps and channels, and rebuild the rest."""
