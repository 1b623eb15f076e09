"""What a teacher uses: material for a class, and grading. `ldm-course grade` and `make class` are made of it."""
