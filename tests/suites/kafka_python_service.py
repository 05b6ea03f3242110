"""Stands in for `test/service.py` of kafka-python, which its source archive leaves out: the broker already runs."""


class ExternalService:
    """The broker that KAFKA_URI names; the suite neither starts nor stops it."""

    def __init__(self, host, port):
        self.host = host
        self.port = port

    def open(self):
        pass

    def stop(self):
        pass

    def close(self):
        pass


class SpawnedService:
    """The suite spawns brokers only when KAFKA_URI is unset."""

    def __init__(self, *arguments, **settings):
        raise RuntimeError("this run tests an external broker")
