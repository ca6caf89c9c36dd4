"""A recipe in a folder: trained, logged, saved, stopped and resumed (`run`); samples drawn from what came out (`draw`)."""
