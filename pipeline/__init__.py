"""The domain: states, workflows, stages and the object store. Knows no database, broker or HTTP."""
