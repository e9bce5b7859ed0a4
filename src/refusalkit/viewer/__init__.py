"""The viewer: runs below a folder, read and labelled in a browser on this machine."""
