package control

// Abort ends the connection without a word, as a kill does.
func (c *Conn) Abort() { c.ws.NetConn().Close() }
