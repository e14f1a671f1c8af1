// Server-sent events (HTML Living Standard, section 9.2), as the hub sends them.

// reader returns a function that takes text as it comes and calls on for each event that is whole.
export function reader(on: (event: string, data: string) => void): (text: string) => void {
  let rest = ''
  let event = ''
  let data: string[] = []
  return (text) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const [, field, value = ''] = /^([^:]*):? ?(.*?)\r?$/.exec(line) ?? []
      if (field === 'event') event = value
      else if (field === 'data') data.push(value)
      else if (line.trim() === '') {
        if (data.length) on(event || 'message', data.join('\n'))
        event = ''
        data = []
      }
    }
  }
}
