run list vitlet camera list --json
