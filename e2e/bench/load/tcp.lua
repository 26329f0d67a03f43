-- The same load, as bytes of a protocol the proxy must not take for HTTP/1: the request line names
-- HTTP/1.2, a version nginx answers and detection passes as opaque.
local here = debug.getinfo(1, "S").source:match("@(.*/)") or "./"
dofile(here .. "result.lua")

function wrk.init()
   local request = "GET / HTTP/1.2\r\nHost: localhost\r\n\r\n"
   wrk.request = function() return request end
end
