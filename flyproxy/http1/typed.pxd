"""What edge/lane.pyx takes from the typed reader."""


cdef enum:
    SPECIAL_MAX = 8

cdef struct Span:
    # Where things stand in the bytes of a head; all are offsets.
    Py_ssize_t target      # of a request: its target; of an answer: its reason
    Py_ssize_t target_end
    Py_ssize_t lines       # the first header line
    Py_ssize_t lines_end   # behind the last header line's CRLF
    Py_ssize_t host        # Host's value
    Py_ssize_t host_end
    Py_ssize_t length      # Content-Length's value
    Py_ssize_t length_end
    Py_ssize_t special[SPECIAL_MAX]      # lines that do not go on as they are
    Py_ssize_t special_end[SPECIAL_MAX]  # behind their CRLF
    int specials
    int method             # which of METHODS
    int status
    bint verbatim          # Host stands first, spelled as we do, and nothing else is special
    bint keep_alive
    bint dated             # of an answer: it has a Date
    long long content_length
    Py_ssize_t size

cdef class Reader:
    cdef Py_ssize_t small_bytes
    cdef int header_count
    cdef bint of_requests
    cdef dict kinds
    cdef unsigned int letters[64]
    cdef bint read_request(self, const unsigned char *raw, Py_ssize_t size, Span *span)
    cdef bint read_answer(self, const unsigned char *raw, Py_ssize_t size, Span *span)
    cdef bint _lines(self, const unsigned char *raw, Py_ssize_t size, Span *span)
    cdef bint _special(self, const unsigned char *raw, Py_ssize_t begin, Py_ssize_t colon, Py_ssize_t end, Span *span)

cdef class TypedRequestParser:
    cdef Reader reader
    cdef object careful
    cdef dict hosts
    cdef object host_of(self, bytes value)

cdef class TypedResponseParser:
    cdef Reader reader
    cdef object careful

cdef Py_ssize_t copy_lines(char *to, const char *raw, Span *span)
