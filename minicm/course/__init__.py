"""Course assignments: what is asked, how it is checked, and the proof that the checks are right. See docs/course.md."""
