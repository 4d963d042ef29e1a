"""What runner.py is made of; a package, so that no task meets its modules by accident."""
