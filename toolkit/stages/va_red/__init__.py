"""The stage `va_red`: convolutions that compute only some time steps and channels, for each input as much as it needs."""
