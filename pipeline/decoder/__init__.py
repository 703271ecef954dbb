"""Stages that read a stranger's bytes run in a process of their own, under limits."""
