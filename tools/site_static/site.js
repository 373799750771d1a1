// The lines around what was found are fetched, which a browser refuses a page that is a file.
DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== 'file:'

// What scrolls sideways has to be within reach of the keyboard.
function reach() {
  for (const box of document.querySelectorAll('pre, .formula, .cell_output .output, .table-wrapper'))
    box.scrollWidth > box.clientWidth ? box.tabIndex = 0 : box.removeAttribute('tabindex')
}
addEventListener('load', reach)
addEventListener('resize', reach)
