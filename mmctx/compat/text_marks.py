"""Text files that begin with a byte order mark, as Windows' Notepad and Excel write them.

mmengine decodes lists of files and classes as UTF-8, which makes the mark an invisible part of the
first name.
"""

from mmengine.fileio import LocalBackend

from mmctx.text import decode_text, with_plain_line_ends


def install():
    """Let mmengine read local text files without their marks. Idempotent."""
    original = LocalBackend.get_text
    if original.__module__ == __name__:
        return

    def get_text(self, filepath, encoding='utf-8'):
        if encoding.lower().replace('_', '-') not in ('utf-8', 'utf8'):
            return original(self, filepath, encoding)
        return with_plain_line_ends(decode_text(self.get(filepath)))

    LocalBackend.get_text = get_text
