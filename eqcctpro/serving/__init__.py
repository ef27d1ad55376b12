"""The online picker: the same engine as a service, on Ray Serve.

FastAPI, Ray Serve and what else belongs to a service are imported in this room only.
"""
