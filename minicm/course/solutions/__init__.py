"""Worked solutions of the assignments, for instructors; `minicm course export` leaves them out."""
