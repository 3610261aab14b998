-- Load for `wrk`: each request publishes one CloudEvent in binary mode, with an id of its own and 256 bytes of data.
-- The token comes from the environment, BENCH_TOKEN; the ids begin with BENCH_RUN, so that no run repeats another's.

local format, data = string.format, string.rep("x", 256)
local run, sent = os.getenv("BENCH_RUN"), 0
local head = "POST %s HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer " .. os.getenv("BENCH_TOKEN") .. "\r\n"
  .. "content-type: application/octet-stream\r\ncontent-length: 256\r\nce-specversion: 1.0\r\nce-source: /bench\r\n"
  .. "ce-type: reading\r\nce-subject: plant/%d\r\nce-id: %s-%d\r\n\r\n%s"

function request()
  sent = sent + 1
  return format(head, wrk.path, sent % 1000, run, sent, data)
end
