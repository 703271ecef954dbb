"""Celery on SQS: the only place that knows the broker."""
