"""A number, its floor and its band, in one kind of row: of points, of pictures, of guided flows, of all methods."""
