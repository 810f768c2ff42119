"""Holds the tasks tad-hapt: activities and postural transitions of UCI HAPT."""
