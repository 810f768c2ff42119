"""The stage `reinitialise`: a control that draws the weights of what is left anew."""
