"""Reading what strangers sent: file formats, and the jail in which they are parsed."""
