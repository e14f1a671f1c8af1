import { useState } from 'react'
import { type Failure, signIn } from '../api/client'
import { text } from '../text'

export function SignInPage({ done }: { done: () => void }) {
  const [token, setToken] = useState('')
  const [failure, setFailure] = useState<Failure>()
  return (
    <main className="signin">
      <form
        className="dialog"
        onSubmit={(e) => {
          e.preventDefault()
          signIn(token.trim()).then(done, setFailure)
        }}
      >
        <h1>
          <img src="/icon.svg" alt="" width="28" height="28" /> {text.signIn.title}
        </h1>
        <p>{text.signIn.help}</p>
        <label>
          {text.signIn.token}
          <input type="password" value={token} onChange={(e) => setToken(e.target.value)} autoFocus autoComplete="current-password" required />
        </label>
        {failure && (
          <p className="warn" role="alert">
            {failure.message}
          </p>
        )}
        <button type="submit" className="main">
          {text.signIn.button}
        </button>
      </form>
    </main>
  )
}
