-- HTTP/1.1 with keep-alive, wrk's own request; prints the result as JSON for comparison/load.py.
local here = debug.getinfo(1, "S").source:match("@(.*/)") or "./"
dofile(here .. "result.lua")
