"""One file for each command of the command line. Imported only when it is called."""
