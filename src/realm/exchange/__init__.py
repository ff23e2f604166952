"""Other systems' formats: published REALM weights in, runs out."""
