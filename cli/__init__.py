"""The ``dailies`` command and the embedded stack."""
