"Sphinx's settings for the site that tools/site.py builds."
project = 'mnist_foundations'
author = 'the mnist_foundations authors'
extensions = ['myst_nb']
html_theme = 'furo'
html_title = project
html_show_sourcelink = False
nb_execution_mode = 'off'
nb_merge_streams = True
suppress_warnings = ['mystnb.unknown_mime_type']   # the result rows, which stand beside their table
myst_enable_extensions = ['dollarmath', 'amsmath']
myst_heading_anchors = 3
