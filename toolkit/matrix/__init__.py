"""The zoo matrix: every model cut in every order, reloaded in a new process and exported, failures shown as such."""
