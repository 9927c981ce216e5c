"""Floor 10: the command line. One module per verb, imported only when that verb is called."""
