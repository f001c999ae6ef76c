"""The commands of the command line: each adds its parser and does its work."""
