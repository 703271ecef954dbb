"""The embedded stack: every server and every part of Dailies as real processes on loopback."""
