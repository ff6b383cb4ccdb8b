"""Text files with and without byte order marks."""

import codecs

import pytest
from mmengine.fileio import LocalBackend, list_from_file

from mmctx.text import decode_text, read_text

MARKED = {
    'utf-8': b'',
    'utf-8-sig': codecs.BOM_UTF8,
    'utf-16-le': codecs.BOM_UTF16_LE,
    'utf-16-be': codecs.BOM_UTF16_BE,
    'utf-32-le': codecs.BOM_UTF32_LE,
}


@pytest.mark.parametrize('encoding', MARKED)
def test_a_mark_says_the_encoding_and_is_no_part_of_the_text(tmp_path, encoding):
    text = 'bowling\r\nstraße\n'
    mark = b'' if encoding == 'utf-8-sig' else MARKED[encoding]
    (tmp_path / 'list.txt').write_bytes(mark + text.encode(encoding))
    assert decode_text((tmp_path / 'list.txt').read_bytes()) == text
    for read in (read_text, LocalBackend().get_text):
        assert read(tmp_path / 'list.txt') == 'bowling\nstraße\n'
    assert list_from_file(str(tmp_path / 'list.txt')) == ['bowling', 'straße']


def test_a_stated_encoding_is_kept(tmp_path):
    (tmp_path / 'old.txt').write_bytes('straße'.encode('latin-1'))
    assert LocalBackend().get_text(tmp_path / 'old.txt', encoding='latin-1') == 'straße'
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / 'old.txt')
