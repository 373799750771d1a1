"Sphinx's settings for the site that tools/site.py builds; formulas become MathML, which needs neither script nor network."
import re
from importlib.metadata import version as version_of

from docutils.nodes import SkipNode, math_block
from latex2mathml.converter import convert

project = 'mnist_foundations'
author = 'the mnist_foundations authors'
copyright = f'2026 onwards, {author}'
version = release = version_of(project)
extensions = ['myst_nb', 'sphinx.ext.viewcode']
nb_execution_mode = 'off'
nb_merge_streams = True
myst_enable_extensions = ['dollarmath', 'amsmath', 'fieldlist', 'colon_fence', 'deflist', 'attrs_inline']
myst_heading_anchors = 3
suppress_warnings = ['mystnb.unknown_mime_type', 'epub.unknown_project_files']   # result rows stand beside their table
add_module_names = False
toc_object_entries_show_parents = 'hide'

html_theme = 'furo'
html_title = project
html_show_sourcelink = False
html_static_path = ['static']
html_css_files = ['site.css']
html_js_files = ['site.js']
html_math_renderer = 'mathml'
pygments_style, pygments_dark_style = 'a11y-high-contrast-light', 'a11y-high-contrast-dark'
epub_show_urls = 'no'
epub_static_path = []

# What pandas, a table in Markdown and a folded cell bring that XHTML refuses.
XHTML = {'<style( scoped)?>.*?</style>': '', '<br>': '<br/>', ' valign="top"': '',
         r'(<summary[^>]*>\s*)<p([^>]*)>(.*?)</p>\s*<p([^>]*)>(.*?)</p>': r'\1<span\2>\3</span><span\4>\5</span>'}


def visit_math(self, node):
    display = isinstance(node, math_block)
    formula = convert(node.astext(), display='block' if display else 'inline')
    formula = re.sub(r'(&#x000(?:28|2C|3D|B7);</mo><mo)(>&#x02212;)', r'\1 form="prefix"\2', formula)   # a sign, no difference
    formula = re.sub(r'(<mi>(?:log|exp|tanh|max)</mi>)(<m[isn])', r'\1<mspace width="0.167em" />\2', formula)
    self.body.append(f'<div class="formula">{formula}</div>' if display else formula)
    raise SkipNode


def mend(app, pagename, templatename, context, doctree):
    """The theme calls the captions in the margin headings, and leaves their level out. A book has to be XHTML, where a
    browser forgives."""
    if tree := context.get('furo_navigation_tree'):
        context['furo_navigation_tree'] = tree.replace('role="heading"', 'role="heading" aria-level="2"')
    if app.builder.name == 'epub':
        for pattern, new in XHTML.items(): context['body'] = re.sub(pattern, new, context.get('body', ''), flags=re.S)
        context['css_files'] = [file for file in context['css_files'] if 'mystnb' not in file.filename]      # is not in the book


def setup(app):
    app.add_html_math_renderer('mathml', (visit_math, None), (visit_math, None))
    app.connect('html-page-context', mend, priority=900)      # after the theme's own
