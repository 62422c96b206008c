"""Kafka: source and sink, records, client, transactions, errors."""
