"""Named runs as plain functions, (model, objective, data, config), usable without the command."""
