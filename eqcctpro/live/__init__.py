"""Real-time data: packets of records from SeedLink servers, and a server to rehearse with."""
