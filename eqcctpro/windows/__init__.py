"""Where windows lie on a record, and how their predictions become one curve."""
