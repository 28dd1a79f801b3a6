-- Run once, when the server's data is made. The ids that a registry gave are on the tape for ever, so they are kept here.
CREATE DATABASE registry;
