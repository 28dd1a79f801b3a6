"""Who may do what: the roles, the credentials that prove one, and how each service is told."""
