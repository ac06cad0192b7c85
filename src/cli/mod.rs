//! One file per command: read the arguments, call the house, print the result.
